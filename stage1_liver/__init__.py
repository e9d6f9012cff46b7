"""Stage 1: where the liver is, on a coarse grid of the whole scan.

Geometry and policy only; the network is handed in as an `Infer` and may be a fake in tests. Knows neither stage 2 nor
`cascade`.
"""
