"""Side-by-side programs: ours against the published way, both in one run. Figures are in results/."""
