# `make demo` and `make test` each work first and alone on a fresh clone: they find a CPython
# 3.10-3.13, make .venv, install everything and go. A second run reuses the environment.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
EXTRAS := train,data,lava,speech,stream,scale,mapping,sanafe,studies,frameworks,docs,dev
# Test processes. Each computes with one thread, so that they do not fight over the cores.
JOBS ?= 2
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help env demo test lint docs wheel bench browser screenshots clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    install, run the whole pipeline once, print where the report is"
	@echo "make test    install, check style and types, run the whole test suite"
	@echo "make env     install into $(VENV) only"
	@echo "make lint    style and types only"
	@echo "make screenshots   pictures of the demo's report on desktop, phone and paper"
	@echo "make docs    the documentation as a site, in build/site"
	@echo "make wheel   build the wheel into dist/"
	@echo "make bench   time the executors on the shipped deployment"
	@echo "make clean   remove $(VENV), build results and caches"
	@echo "Choose the interpreter with PYTHON=..., the test processes with JOBS=..."

env: $(STAMP)

demo: $(STAMP)
	$(BIN)/neuroav demo

test: lint browser
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The report is tested in Chromium: one that is installed, else fetched into the user's cache, else,
# as root, the system's package. Without any, those tests are skipped and say so.
browser: $(STAMP)
	@$(BIN)/python docs/screenshots.py --find >/dev/null 2>&1 \
	    || timeout 300 $(BIN)/playwright install chromium >/dev/null 2>&1 \
	    || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update >/dev/null 2>&1 \
	         && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y chromium >/dev/null 2>&1; } \
	    || echo "no Chromium found or installed: the tests of the report in a browser are skipped"

screenshots: browser
	[ -e runs/demo/report/report.html ] || $(BIN)/neuroav demo
	$(BIN)/python docs/screenshots.py runs/demo/report/report.html --out runs/demo/screenshots

# Warnings are errors. The variable silences a notice of Material's makers about their next product.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "open build/site/index.html"

wheel: $(STAMP)
	$(BIN)/python -m build --wheel --no-isolation

bench: $(STAMP)
	for backend in reference fast lava; do \
	    $(BIN)/neuroav simulate shipped:tiny.nav --backend $$backend || exit; \
	done

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find neuroav export tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The first interpreter that starts, is CPython in range, and can make an environment.
define find_python
python=; lacking=; \
for name in $(if $(PYTHON),"$(PYTHON)",python3 python3.11 python3.12 python3.13 python3.10); do \
    "$$name" -c 'import sys; sys.exit(sys.implementation.name != "cpython" \
        or not (3, 10) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || continue; \
    if "$$name" -c 'import ensurepip, venv' 2>/dev/null; then python="$$name"; break; fi; \
    lacking="$${lacking:-$$name}"; \
done; \
if [ -z "$$python" ] && [ -n "$$lacking" ]; then \
    version=$$("$$lacking" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
    echo "$$lacking has no ensurepip; install it (Debian, Ubuntu: apt install" \
         "python$$version-venv) or name another interpreter with PYTHON=..." >&2; exit 1; \
elif [ -z "$$python" ]; then \
    echo "no CPython 3.10-3.13 found$(if $(PYTHON), at $(PYTHON),); name one with PYTHON=..." >&2; \
    exit 1; \
fi
endef

# uv does not read pip's settings: hand over where pip is told to find packages. Extra indexes are
# left out, since uv would prefer them to the main one; name them in UV_INDEX where they are needed.
define pip_settings
pip_setting() { $(BIN)/python -m pip config get "global.$$1" 2>/dev/null || true; }; \
links="$${PIP_FIND_LINKS:-$$(pip_setting find-links)}"; \
index="$${PIP_INDEX_URL:-$$(pip_setting index-url)}"; \
if [ -n "$$links" ] && [ -z "$$UV_FIND_LINKS" ]; then \
    UV_FIND_LINKS=$$(echo $$links | tr ' ' ','); export UV_FIND_LINKS; \
fi; \
if [ -n "$$index" ] && [ -z "$$UV_DEFAULT_INDEX" ]; then \
    UV_DEFAULT_INDEX="$$index"; export UV_DEFAULT_INDEX; \
fi
endef

# An environment left half-made, or whose interpreter has gone, is made anew. Some Pythons put an old
# setuptools into it, which uv would keep and choose an older torch for: it is taken out again.
$(BIN)/uv:
	@if ! $(BIN)/python -c '' 2>/dev/null; then \
	    $(find_python); \
	    echo "making $(VENV) with $$python"; \
	    "$$python" -m venv --clear $(VENV) || exit; \
	    $(BIN)/python -m pip uninstall --quiet --yes setuptools 2>/dev/null; \
	fi
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	$(BIN)/python -m pip install --quiet uv

$(STAMP): pyproject.toml | $(BIN)/uv
	@$(pip_settings); \
	$(BIN)/uv pip install --python $(BIN)/python -e '.[$(EXTRAS)]'
	@touch $@
