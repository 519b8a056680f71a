"""What a model's pass gives: positions, queries and keys, and sums over rows of attention. These need torch."""
