"""From files to arrays with geometry, and back. Knows no network and imports no other package of this project.

Arrays are indexed (z, y, x) everywhere; positions are world millimetres (x, y, z) in LPS, as in DICOM and ITK.
"""
