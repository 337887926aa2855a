# Everything a fresh machine with Python >= 3.10 needs: `make demo` and `make test` set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUN := OMP_NUM_THREADS=1 $(BIN)/

.PHONY: demo test slow evidence works lint asan clean

demo: $(INSTALLED)
	$(BIN)/sparseflow compare digits --out runs/digits

test: $(INSTALLED) lint
	$(RUN)python -m pytest -n 2 -m "not slow"

slow: $(INSTALLED)
	$(RUN)python -m pytest -n 2 -m slow

# Long runs on real data ($$SPARSEFLOW_DATA names its folder); what was cut goes on.
evidence: $(INSTALLED)
	$(RUN)sparseflow compare lottery-mnist --out runs/lottery-mnist
	$(RUN)sparseflow compare criteria-fashion --out runs/criteria-fashion
	$(RUN)sparseflow analyse signal lenet-5 --input-shape 1,28,28 --classes 10 --out runs/signal-lenet-5
	$(RUN)sparseflow compare methods-lenet --out runs/methods-lenet
	$(RUN)sparseflow compare methods-mlp --out runs/methods-mlp
	$(RUN)sparseflow compare tost-small --out runs/tost-small
	$(RUN)sparseflow compare tickets-lenet --out runs/tickets-lenet
	$(RUN)sparseflow search digits-seeds --out runs/search-digits-seeds
	$(RUN)sparseflow train mnist --set model.name=lenet-5 --set model.padding=2 --set mask.density=0.05 --set mask.budget=erk \
		--set init.method=fans --set optimizer.lr=0.05 --set train.epochs=2 --out runs/train-lenet-5
	$(RUN)sparseflow analyse hessian runs/train-lenet-5 --exact --probes 3 --steps 51 --examples 1000 --out runs/hessian-lenet-5

# What every table and figure of the papers takes, counted anew after a change of their experiments.
works: $(INSTALLED)
	$(RUN)python -m sparseflow.reproduce.works

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt $(wildcard src/sparseflow/sparse/csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

asan: $(INSTALLED)
	PYTHON=$(CURDIR)/$(BIN)/python tests/asan.sh

clean:
	rm -rf $(VENV) build dist src/*.egg-info src/sparseflow/sparse/*.so
