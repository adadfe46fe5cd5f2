"""What several rooms' tests share: inputs, files, processes."""
