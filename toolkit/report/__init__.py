"""Reports: tables and plots of results, made of what is stored and of nothing else."""
