"""What is made of results: tables, pictures and pages."""
