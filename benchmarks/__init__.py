"""Measurements that `medusa bench` and the README's tables come from; nothing here is needed to use the library."""
