"""Programs that measure fixres against others, for researchers who rerun them; users never run them."""
