"""The policies that come with the kernel; one file a family, found by the registry."""
