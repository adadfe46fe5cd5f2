"""bench.cost: the cost model beside this machine and beside published figures."""
