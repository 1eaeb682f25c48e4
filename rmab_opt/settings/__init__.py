"""Five ideas that stand on the kernel, each in a folder of its own: deleting one leaves the rest whole."""
