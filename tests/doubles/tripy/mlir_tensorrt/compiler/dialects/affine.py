"""Of the double."""


class AffineMap:
    @staticmethod
    def get_permutation(permutation: list[int]) -> list[int]:
        return list(permutation)
