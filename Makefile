# `make app` opens the workbench, `make test` checks everything. Each sets up what it needs.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: app test test-fast check format clean evaluation lock audit licences

app: $(VENV)/ready
	-$(PY) -m model fetch --default
	$(PY) -m streamlit run app/main.py

test: $(VENV)/ready-dev check
	@tests/chromium.sh
	-$(PY) -m model fetch smollm2-135m-instruct
	$(PY) -m pytest -n 3 --dist loadscope --no-loadscope-reorder  # one has the browser tests, and often waits

# what one runs while editing: no browser, no kill and resume, no training, no real model
test-fast: $(VENV)/ready-dev
	$(PY) -m pytest -n 2 --dist loadscope --no-loadscope-reorder -m "not slow and not browser and not real"

check: $(VENV)/ready-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(VENV)/ready-dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# the table of docs/evaluation.md: make evaluation DATA=FOLDER; hours on two cores; an interrupted run resumes
EVALUATED := smollm2-135m-instruct control-smollm2-135m micro-step-smollm2-135m
evaluation: $(VENV)/ready-dev
	for model in $(EVALUATED); do \
	  $(PY) -m evals run --model $$model --confidence 0.5,0.8,0.95 --chat --multiturn --allow-code-execution \
	    --tasks gsm8k_cot_zeroshot:200,gsm8k_cot:200,arc_challenge:300,mbpp_instruct:100,humaneval_whole \
	    --batch-rows 64 --max-new-tokens 256 --dtype float32 --threads 2 --local $(DATA) --out evaluated/$$model || exit 1; \
	done
	$(PY) -m evals report $(EVALUATED:%=evaluated/%) --out evaluated/table.md --figures evaluated --figure-format png

# exact versions and hashes of all that requirements.txt brings, for every platform:
# pip install --require-hashes -r requirements.lock
lock: $(VENV)/ready
	$(PY) -m pip install --quiet --disable-pip-version-check "uv==0.13.8"
	$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header requirements.txt -o requirements.lock

# known weaknesses of these versions
audit: $(VENV)/ready
	$(PY) -m pip install --quiet --disable-pip-version-check "pip-audit==2.10.1"
	$(PY) -m pip_audit --strict --require-hashes --disable-pip --requirement requirements.lock \
	  || { echo "make audit: weaknesses are listed above, or the list of known weaknesses could not be reached" >&2; exit 1; }

licences: $(VENV)/ready
	$(PY) docs/make_licences.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "micro_step needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready: requirements.txt | $(VENV)/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check "pip==26.3"
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	-$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .  # the command micro-step
	@touch $@

$(VENV)/ready-dev: requirements-dev.txt requirements-evals.txt requirements-ray.txt $(VENV)/ready
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -r requirements-ray.txt \
	  || $(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt  # tests of Ray are skipped
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
