"""STORY"""
