"""Do the pages say what the benchmarks wrote? Records of figures beside the pages, and the comparison."""
