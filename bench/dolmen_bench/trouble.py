"""What can go wrong in a measurement, told so that the user knows what to do next."""


class Trouble(Exception):
    """A measurement that cannot be made, or that would not be worth believing."""


class Mistake(Exception):
    """The user's mistake: wrong words on the command line, or a program that is not installed."""
