"""Does the kernel do what it should on this GPU?"""
