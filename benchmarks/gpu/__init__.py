"""What one GPU does with fixres: training, evaluation, reading, and a study with the cached solver, in one run."""
