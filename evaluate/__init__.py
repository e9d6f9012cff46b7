"""Scores of liver and tumour masks by the definitions of LiTS (Bilic et al., Medical Image Analysis 84, 102680, 2023).

In a notebook:

    import evaluate

    case = evaluate.score(prediction, truth, spacing_mm=(1.0, 0.78, 0.78))  # arrays (z, y, x) of 0, 1 and 2
    case.tumor.dice, case.liver.assd, case.lesions.pairs
    evaluate.case_rows([case])  # a list of dicts, as `pandas.DataFrame` takes it
    evaluate.csv_of(evaluate.case_rows([case]))
    evaluate.CohortScore((case, ...)).summary("tumor", "dice")
"""

from evaluate.cohort import CohortScore
from evaluate.columns import case_rows, lesion_rows
from evaluate.comparison import Comparison
from evaluate.scores import CaseScore, score, score_labels
from evaluate.text import csv_of

__all__ = ["CaseScore", "CohortScore", "Comparison", "case_rows", "csv_of", "lesion_rows", "score", "score_labels"]
