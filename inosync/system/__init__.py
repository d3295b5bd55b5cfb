"""One Linux thing in each module; none imports another, nor anything else of inosync."""
