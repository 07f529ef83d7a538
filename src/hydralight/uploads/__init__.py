"""What of a run goes to the Hugging Face hub, and how: a folder as one commit."""
