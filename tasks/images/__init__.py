"""Images: files, families, batches, patches, and how good a picture is."""
