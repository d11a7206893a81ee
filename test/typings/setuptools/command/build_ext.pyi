from setuptools import Distribution

class build_ext:
    distribution: Distribution
    build_lib: str
    build_temp: str
    inplace: bool
    def run(self) -> None: ...
    def get_outputs(self) -> list[str]: ...
