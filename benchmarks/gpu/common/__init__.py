"""What all parts share: the machine, timing, attainable rates, output."""
