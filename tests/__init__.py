"""The test suite, in folders as the product's; `helpers.cases` holds the one table of inputs."""
