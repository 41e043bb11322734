"""What a long run asks of the machine: durable files, journals, clean stops, clocks and devices."""
