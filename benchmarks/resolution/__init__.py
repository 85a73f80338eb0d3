"""What the size itself gives: the clean experiment behind docs/results.md."""
