# Everything a fresh machine with Python >= 3.10 needs: `make demo` and `make test` set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUN := OMP_NUM_THREADS=1 $(BIN)/

.PHONY: demo test slow evidence results works lint asan clean

demo: $(INSTALLED)
	$(BIN)/sparseflow compare digits --out runs/digits

test: $(INSTALLED) lint
	$(RUN)python -m pytest -n 2 -m "not slow"

slow: $(INSTALLED)
	$(RUN)python -m pytest -n 2 -m slow

# Long runs on real data ($$SPARSEFLOW_DATA names its folder); what was cut goes on.
evidence: $(INSTALLED) results
	$(RUN)sparseflow compare lottery-mnist --out runs/lottery-mnist
	$(RUN)sparseflow compare criteria-fashion --out runs/criteria-fashion
	$(RUN)sparseflow analyse signal lenet-5 --input-shape 1,28,28 --classes 10 --out runs/signal-lenet-5
	$(RUN)sparseflow compare methods-lenet --out runs/methods-lenet
	$(RUN)sparseflow compare methods-mlp --out runs/methods-mlp
	$(RUN)sparseflow compare tost-small --out runs/tost-small
	$(RUN)sparseflow compare tickets-lenet --out runs/tickets-lenet
	$(RUN)sparseflow search digits-seeds --out runs/search-digits-seeds
	$(RUN)sparseflow search digits-halving --out runs/search-digits-halving
	$(RUN)sparseflow train mnist --set model.name=lenet-5 --set model.padding=2 --set mask.density=0.05 --set mask.budget=erk \
		--set init.method=fans --set optimizer.lr=0.05 --set train.epochs=2 --out runs/train-lenet-5
	$(RUN)sparseflow analyse hessian runs/train-lenet-5 --exact --probes 3 --steps 51 --examples 1000 --out runs/hessian-lenet-5

# Tables and figures of the papers at scales that two cores can bear, recorded in results/; then the page of them all.
RECORDED := 001.tableA.1:5 001.figA.10a:5 001.figA.10b:5 001.table3.1:8 001.table3.3a:7 001.tableB.1a:7 \
	003.table1:7 003.table2.resnet32:9 004.table1.lenet5:small 004.table2.lenet5:small 004.table5:medium \
	004.fig2.lenet5:small 004.fig2.vgg16:9 004.fig2.resnet50:9 004.fig3.lenet5:small 004.fig3.resnet50:9 \
	004.fig5a:small 004.fig5b:small 004.fig5c:small 004.fig5d:9 004.fig5e:9 004.fig5f:9 \
	004.fig9a:medium 004.fig9b:medium 004.fig9c:medium
UNTRAINED := 000.table2 001.table3.2 001.table4.1a 001.table4.1b 004.table3 004.table4 001.fig2.3 001.fig2.5 001.figA.9a \
	001.figA.9b 003.fig3 003.fig5 004.fig1c
results: $(INSTALLED)
	for item in $(UNTRAINED); do $(RUN)sparseflow reproduce $$item --scale full --record results || exit 1; done
	for item in $(RECORDED); do $(RUN)sparseflow reproduce $${item%:*} --scale $${item#*:} --record results || exit 1; done
	$(RUN)sparseflow reproduce 001.table3.3a --scale small --data digits --record results
	$(BIN)/sparseflow reproduce --scoreboard docs/reproduction.md --record results

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
