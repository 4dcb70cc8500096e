"""What a user names: files, artifacts and code, their inputs, references and runtimes."""
