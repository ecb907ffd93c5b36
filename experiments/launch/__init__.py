"""Where cells run: workers on this machine, on SLURM, on Kubernetes."""
