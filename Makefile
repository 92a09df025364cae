# make test   everything that is tested, on this machine
# make build  the program, in bin/
# make lint   the linters alone

SHELL := /bin/bash

.PHONY: build test lint
build:
	go build -o bin/ ./cmd/...

test:
	@bash .ci/test

lint:
	go tool -modfile=.ci/tools.mod golangci-lint run
