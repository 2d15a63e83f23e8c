"""Measuring one task on the device, politely."""
