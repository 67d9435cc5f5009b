# `make demo` and `make test` install for themselves whatever they need; nothing has to be set up before.

VENV := .venv
# How many processes share the test suite, each with the tests of a cluster or of a file; 0 for none but pytest's own.
TEST_PROCESSES := 0

.PHONY: demo test check lint serve docs reference lock clean

demo: $(VENV)/.serves
	$(VENV)/bin/python run.py --demo

serve: $(VENV)/.serves
	$(VENV)/bin/python run.py

test: $(VENV)/.tests
	$(VENV)/bin/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadgroup

# The linters, and the tests that need neither a cluster nor a database server.
check: lint
	$(VENV)/bin/python -m pytest --quiet --numprocesses 2 --dist loadgroup -m "not real"

lint: $(VENV)/.tests
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# The documentation as a site in site/. Once its packages are installed, the build needs no network.
docs: $(VENV)-docs/.builds
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict
	@! grep -rE '<(script|link|img|iframe)[^>]+="(https?:)?//' site --include=*.html  # loads nothing from other servers

# The parts of docs/reference/ that come from the code.
reference: $(VENV)/.serves
	$(VENV)/bin/python -m docs.generate_reference

clean:
	rm -rf $(VENV) $(VENV)-docs demo site

$(VENV)/.serves: requirements.txt
	sh .ci/venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.tests: requirements.txt requirements-test.txt
	sh .ci/venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-test.txt
	touch $@ $(VENV)/.serves

$(VENV)-docs/.builds: requirements-docs.txt
	sh .ci/venv $(VENV)-docs
	$(VENV)-docs/bin/pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $@
