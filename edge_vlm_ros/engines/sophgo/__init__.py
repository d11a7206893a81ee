"""The Sophgo engine: bmodels on BM1684X and BM1688."""
