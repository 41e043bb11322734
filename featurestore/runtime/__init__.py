"""What a long run asks of the machine: durable files, journals, clean stops, clocks, devices, and how sizes and times are worded."""
