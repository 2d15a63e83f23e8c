"""Promoted configs as the tables that servers fetch."""
