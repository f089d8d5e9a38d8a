"""The value machinery and the engine; knows no optimizer."""
