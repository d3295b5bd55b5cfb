"""What the tests are made with: real nodes, a real daemon, trees and their differences, hostile changes."""
