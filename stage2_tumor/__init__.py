"""Stage 2: tumour, and the liver's exact edge, at full resolution inside the region of interest.

Geometry and policy only; the network is handed in as an `Infer` and may be a fake in tests. Knows neither stage 1 nor
`cascade`.
"""
