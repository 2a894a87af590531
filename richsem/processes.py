"""What other processes need to know before they start."""

# glibc gives large tensors back to the system at every step of a training and asks for them again;
# keeping them doubles the speed. It reads these settings once, when a process starts.
KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "100000000",
}
