from setuptools import Extension, setup

setup(
    name="kern",
    version="0",
    py_modules=["kern"],
    ext_modules=[
        Extension("_kernels", ["_kernels.c"], depends=["_kernels.inc"], extra_compile_args=["-O3"], optional=True)
    ],
)
