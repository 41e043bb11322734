"""Measurements that `medusa bench` and the tables in docs come from; nothing here is needed to use the library."""
