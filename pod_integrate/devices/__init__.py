"""What differs between the devices that attention runs on."""
