"""External and internal benchmarks of SAEs: what they measure, apart from the kinds that run them."""
