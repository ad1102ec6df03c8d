"""What `e2e/twins` is made of: twin databases that differ in sealed values only, statements, and what clients see."""
