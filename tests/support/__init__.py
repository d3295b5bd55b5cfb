"""Tools of the tests: real nodes, a real daemon, trees and their differences, hostile changes."""
