"""What the tuner keeps: one database of transactions, and trace archives."""
