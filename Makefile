# `make demo` and `make test` install for themselves whatever they need; nothing has to be set up before.

VENV := .venv
# How many processes share the tests; 0 for one after the other. Most tests wait, so 5 suit a machine with 2 processors.
TEST_PROCESSES := 0

.PHONY: demo test check lint serve docs reference benchmarks lock clean

demo: $(VENV)/.serves
	$(VENV)/bin/python run.py --demo

serve: $(VENV)/.serves
	$(VENV)/bin/python run.py

test: $(VENV)/.tests
	sh .ci/test $(VENV)/bin/python $(TEST_PROCESSES)

# The linters and the unit tests.
check: lint
	$(VENV)/bin/python -m pytest --quiet --numprocesses 3 -m "not real and not timed" tests/unit

lint: $(VENV)/.tests
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# The documentation as a site in site/. Once its packages are installed, the build needs no network.
docs: $(VENV)-tools/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)-tools/bin/mkdocs build --strict
	@! grep -rE '<(script|link|img|iframe)[^>]+="(https?:)?//' site --include=*.html  # loads nothing from other servers

# The parts of docs/reference/ that come from the code.
reference: $(VENV)/.serves
	$(VENV)/bin/python -m docs.generate_reference

# The figures of docs/explanation/performance.md, in benchmarks.md: a quarter of an hour, on a machine that does nothing else.
benchmarks: $(VENV)/.tests
	$(VENV)/bin/python -m benchmarks.report --output benchmarks.md

# Every file that the Docker image installs, with its hashes, for each platform and Python from 3.11 on. Versions that
# the lock has already stay; `rm requirements.lock` first to renew those that the requirements leave open.
lock: $(VENV)-tools/.installed
	$(VENV)-tools/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--no-header --no-emit-index-url --output-file requirements.lock requirements.txt docker/requirements.txt

clean:
	rm -rf $(VENV) $(VENV)-tools demo site

$(VENV)/.serves: requirements.txt
	sh .ci/venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.tests: requirements.txt requirements-test.txt
	sh .ci/venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-test.txt
	touch $@ $(VENV)/.serves

$(VENV)-tools/.installed: requirements-tools.txt
	sh .ci/venv $(VENV)-tools
	$(VENV)-tools/bin/pip install --quiet --disable-pip-version-check -r requirements-tools.txt
	touch $@
