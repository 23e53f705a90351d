/*
 * Which engines have proved themselves on which artifact: each is asked the golden cases once, and the outcome is kept.
 *
 * Takes an installed bundle and a kind of engine. Returns what was right here, opened for its task, or the reason in words why there is none.
 * An outcome belongs to the artifact, the golden cases, the engine's version and the device; whatever changes, the check
 * runs again. An engine that takes the app down with it while it is checked gets MOST_STARTS tries and is then taken for wrong.
 */
package io.pocketbert.core

import java.io.File
import java.io.IOException

/** How a self-check ended. */
sealed interface Outcome {
    /** Every golden case was right; the largest difference of a probability was `gap`. */
    data class Passed(val gap: Float) : Outcome

    /** The engine must not be used for this artifact on this device. */
    data class Failed(val reason: String) : Outcome
}

/** Keeps outcomes in a folder. `device` names what may compute differently: Android's Build.FINGERPRINT. */
class SelfChecks(private val folder: File, private val device: String) {
    /** The outcome that is kept, or null if this has not been checked. */
    fun outcome(installed: InstalledBundle, kind: EngineKind): Outcome? = Record(installed, kind).outcome()

    /** A classifier of texts with an engine of this kind, checked now or before: [open] with [TextClassifier]. */
    fun open(installed: InstalledBundle, kind: EngineKind): TextClassifier = open(installed, kind, ::TextClassifier)

    /**
     * What [task] makes of the bundle, `::TokenClassifier` for one, with an engine of this kind, checked now or before. Throws
     * [EngineException] if the engine answers wrongly, now or when it was checked, or cannot be opened.
     */
    @Synchronized
    fun <T : OpenedBundle> open(installed: InstalledBundle, kind: EngineKind, task: (Bundle, Artifact, Engine) -> T): T {
        val record = Record(installed, kind)
        if (record.starts() >= MOST_STARTS) {
            record.write(FAILED, "${kind.version} ended the app $MOST_STARTS times while it was checked: it is not used any more")
        }
        return when (val known = record.outcome()) {
            is Outcome.Passed -> opened(installed, kind, task)
            is Outcome.Failed -> throw EngineException(known.reason)
            null -> checked(installed, kind, record, task)
        }
    }

    private fun <T : OpenedBundle> checked(installed: InstalledBundle, kind: EngineKind, record: Record, task: (Bundle, Artifact, Engine) -> T): T {
        record.write(STARTED, "${record.starts() + 1}")
        var decided = false
        try {
            val opened = opened(installed, kind, task)
            try {
                record.write(PASSED, "${opened.selfCheck()}").also { decided = true }
                return opened
            } catch (problem: Exception) {
                opened.close()
                if (problem is EngineException) record.write(FAILED, problem.message!!).also { decided = true }
                throw problem
            }
        } finally {
            if (!decided) record.delete() // it could not be opened, which says nothing about what it computes
        }
    }

    private fun <T : OpenedBundle> opened(installed: InstalledBundle, kind: EngineKind, task: (Bundle, Artifact, Engine) -> T): T {
        val engine = kind.open(installed)
        try {
            return task(installed.bundle, installed.artifact, engine)
        } catch (problem: BundleException) {
            engine.close()
            throw problem
        }
    }

    /** A file with one line: a word for the state, a space, and what belongs to it. */
    private inner class Record(installed: InstalledBundle, kind: EngineKind) {
        private val file: File

        init {
            val hashes = (installed.artifact.files + installed.bundle.manifest.golden).map { it.sha256 }
            file = File(folder, sha256((hashes + kind.version + device).joinToString("\n").encodeToByteArray()))
        }

        fun outcome(): Outcome? {
            val (state, rest) = line()
            return when (state) {
                PASSED -> rest.toFloatOrNull()?.let(Outcome::Passed)
                FAILED -> Outcome.Failed(rest)
                else -> null
            }
        }

        fun starts(): Int = line().let { (state, rest) -> if (state == STARTED) rest.toIntOrNull() else null } ?: 0

        /** Where nothing can be kept the check runs again at the next start. */
        fun write(state: String, rest: String) {
            val part = File("${file.path}.part")
            try {
                folder.mkdirs()
                part.writeText("$state $rest")
                part.renameTo(file)
            } catch (_: IOException) {
                part.delete()
            }
        }

        fun delete() {
            file.delete()
        }

        private fun line(): Pair<String, String> = try {
            file.readText().let { it.substringBefore(' ') to it.substringAfter(' ', "") }
        } catch (_: IOException) {
            "" to ""
        }
    }

    private companion object {
        const val MOST_STARTS = 2 // one may be a user who closed the app
        const val STARTED = "started"
        const val PASSED = "passed"
        const val FAILED = "failed"
    }
}
